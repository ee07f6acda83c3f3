"""Drawing on demand: requests, LoRAs by file or step, and the process that keeps a model open between requests."""
