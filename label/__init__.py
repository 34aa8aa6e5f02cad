"""`bas label`: spots marked in a browser, a head that learns from them in seconds, proposals to accept or reject."""
