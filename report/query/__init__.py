"""A run's tables for SQL, notebooks and pages.

    import corpusmill
    run = corpusmill.open_run("runs/demo")     # or s3://bucket/run
    run.sql("SELECT url, gopher_words FROM filter_report WHERE NOT kept ORDER BY gopher_words LIMIT 5").df()

The names of the tables (`corpusmill query RUN` and `run.names` list those of a run):

* `STAGE_report`: one row for each document that came into the stage, kept or not: `id`, `url`, `kept`, `failed` (a list of rules),
  `chars_in`, `chars_out`, and the measured values.
* `STAGE_documents`: the documents that the stage keeps, with their texts.
* `STAGE_FOLDER` and `STAGE_FOLDER_NAME`: a stage's other Parquet files (`dedup_clusters`, `dedup_clusters_sources`, `tokens_train`).
* `json_STAGE_NAME`: its JSON files, in one column `content` (see tables.py).
* The run's records (see records.py): `stages`, `tasks`, `outputs`, `rules`, `settings`, `versions`, `metrics`, `log`, and for each training
  `STAGE_log`, a row a step.

Only files that a manifest names are read. An unfinished stage has the rows of its finished tasks; a stage that has not started has no
tables. Damaged files are left out and named in `run.warnings`. A query that finds a damaged file starts again without it.

Order: rows of a table come in the order of the stage's tasks and of the rows in their files, also through WHERE and LIMIT. After GROUP BY
or a join, or among equal values of ORDER BY, the order is not fixed; sums of floats may differ in their last digits.
"""
