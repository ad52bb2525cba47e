"""Ways to find a reference's object in another image, one a module, behind one interface."""
