"""What people look at: the data report, figures and tables."""
