"""Small copies of a data set's videos that are quick to read at random places."""
