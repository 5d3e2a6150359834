"""What papers claim, and what tables say of it: a file a paper."""
