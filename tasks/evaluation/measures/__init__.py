"""What is measured of one model beside its score: calibration, replies, choices, experts, intervals, the harness."""
