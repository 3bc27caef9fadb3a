"""The demo's report: ``report.json`` from what the stages left, and one self-contained page."""
