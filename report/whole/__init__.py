"""`corpusmill verify`: whether a whole run is what was written, and no document is lost or there twice."""
