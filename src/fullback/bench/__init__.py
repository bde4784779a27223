"""How fast training is, beside other frameworks: what ``fullback bench`` measures."""
