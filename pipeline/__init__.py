"""Defines stages and runs them: recipes, tasks, engines, manifests, storage, the schemas of shards."""
