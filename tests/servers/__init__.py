"""Real database servers for the test suite."""
