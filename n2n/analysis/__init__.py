"""What is made of run records: the tables with their verdicts, the studies, the figures."""
