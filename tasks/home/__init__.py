"""What lies in a home folder: records, digests, the journal, contents of stage folders, history."""
