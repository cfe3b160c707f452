"""Models that somebody else trained: their files opened, and read without being trusted."""
