"""The parts of scripts/mutants.py: drawing mutants, running tests on them, records, report."""
