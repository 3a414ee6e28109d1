"""What `validate` is made of: samples, numbers by energy band, classifiers, faults by name, plots, the page."""
