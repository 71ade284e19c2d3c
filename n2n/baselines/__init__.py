"""The methods that the paper compares with, and detectors that learn next to nothing."""
