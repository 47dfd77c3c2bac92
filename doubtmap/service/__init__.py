"""A network and its doubts behind an address: the open inference protocol, images, and a page."""
