"""What lies in the folder of each finished stage, and how to open it: a file for each stage.

Other stages read a stage's folder through these files, so that no stage imports another.
"""
