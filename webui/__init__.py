"""The web page. It reads what runs write, and starts what a person would type; so far only its reading is built."""
