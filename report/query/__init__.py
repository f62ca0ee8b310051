"""A run's tables for SQL, notebooks and pages.

    import corpusmill
    run = corpusmill.open_run("runs/demo")     # or s3://bucket/run
    run.sql("SELECT url, gopher_words FROM filter_report WHERE NOT kept ORDER BY gopher_words LIMIT 5").df()

What names there are (`corpusmill query RUN` lists those of a run, `run.names` too):

* `STAGE_report`: one row for each document that came into the stage, kept or not: `id`, `url`, `kept`, `failed` (a list of rules),
  `chars_in`, `chars_out`, and what the stage measured.
* `STAGE_documents`: the documents that go on, with their texts.
* `STAGE_FOLDER` and `STAGE_FOLDER_NAME`: a stage's other Parquet files (`dedup_clusters`, `dedup_clusters_sources`, `tokens_train`).
* `json_STAGE_NAME`: its JSON files, one column `content` (see files.py).
* What the run says of itself (see records.py): `stages`, `tasks`, `outputs`, `rules`, `settings`, `versions`, `metrics`, and a training's
  `STAGE_log`, a row a step.

Only files that a manifest names are read; a stage that is not finished has the rows of its finished tasks, and one that has not begun
has no tables. What is damaged is left out and named in `run.warnings`; that includes files which turn out to be damaged in the middle
of a query, which then begins anew without them.

Order: rows of a table come in the order of the stage's tasks and of the rows in their files, also through WHERE and LIMIT. After
GROUP BY or a join, or among equal values of ORDER BY, the order is not fixed; sums of floats may differ in their last digits.
"""
