from bas.errors import InputError


def test_message_has_what_got_wanted_cure() -> None:
    text = str(InputError("the fps is off", got=0, wanted="25", cure="--fps 25"))
    assert text.splitlines() == ["the fps is off", "  got:    0", "  wanted: 25", "  cure:   --fps 25"]
