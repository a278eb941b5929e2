#!/usr/bin/perl
use strict;
exit(0);
