"""The web page. It will read what runs write and start the commands a person would type; it is not built yet."""
