"""One suite of scenarios for every client; README.md says how a client takes part."""
