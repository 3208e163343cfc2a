"""What is measured of one model beside its score: calibration, replies, choices, experts, parity, the harness."""
