"""RDS job runner of a site: datasets, review, execution, release, audit."""
