Package: debian-13-standard
