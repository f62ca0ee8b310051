"""`corpusmill verify`: checks that a whole run is unchanged, and that no document is lost or occurs twice."""
