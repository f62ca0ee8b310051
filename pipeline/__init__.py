"""What a stage is and how it runs: schemas, shards, manifests, engines, recipes, ingest, reports."""
