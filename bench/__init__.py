"""Measurements, as ratios within one run: `make bench`; of the bugs themselves: `make rates`."""
