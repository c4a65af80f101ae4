"""What `--json` says of the SDK's objects: keys that stay, whatever the classes look like inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syftmesh.cli.output import Table, size_text, unix_ms_text

if TYPE_CHECKING:
    from syftmesh_client.files import FileEntryView

    from syftmesh import Job, ReviewJob
    from syftmesh.dataset import DatasetCard
    from syftmesh.dataset import Table as DatasetTable
    from syftmesh.site_job import Finding, Output


def dataset_document(dataset: DatasetCard) -> dict[str, object]:
    """Return what is said of a `syftmesh.Dataset`."""
    return {
        "dataset": f"{dataset.site}/{dataset.name}",
        "site": dataset.site,
        "name": dataset.name,
        "summary": dataset.summary,
        "readme": dataset.readme,
        "tags": list(dataset.tags),
        "audience": list(dataset.audience),
        "private_digest": dataset.private_digest,
        "mock_digest": dataset.mock_digest,
        "mock_generated": dataset.mock_generated,
        "tables": [table_document(table) for table in dataset.tables],
    }


def table_document(table: DatasetTable) -> dict[str, object]:
    """Return what is said of one file of a dataset."""
    columns = [{"name": column.name, "type": column.type} for column in table.columns]
    return {"file": table.file, "columns": columns, "mock_rows": table.mock_rows}


def job_document(job: Job) -> dict[str, object]:
    """Return what is said of a `syftmesh.Job`: what its submitter knows."""
    return {
        "id": job.id,
        "site": job.site,
        "state": str(job.state),
        "end_reason": job.end_reason,
        "message": job.message,
        "released": list(job.released),
    }


def review_document(job: ReviewJob) -> dict[str, object]:
    """Return what is said of a `syftmesh.ReviewJob`: what its reviewer sees."""
    return {
        "id": job.id,
        "site": job.site,
        "state": str(job.state),
        "end_reason": job.end_reason,
        "message": job.message,
        "submitter": job.submitter,
        "project": job.project,
        "purpose": job.purpose,
        "datasets": [{"name": d.name, "digest": d.digest} for d in job.datasets],
        "code_digest": job.code_digest,
        "entrypoint": job.entrypoint,
        "parameters": job.parameters,
        "runtime_digest": job.runtime_digest,
        "recipients": list(job.recipients),
        "findings": [finding_document(finding) for finding in job.findings],
        "outputs": [output_document(output) for output in job.outputs],
        "released": list(job.released),
        "exit_code": job.exit_code,
        "created": unix_ms_text(job.created_ms),
        "updated": unix_ms_text(job.updated_ms),
        "expires": unix_ms_text(job.expires_ms),
    }


def finding_document(finding: Finding) -> dict[str, object]:
    """Return what is said of a finding of review or gate."""
    return {
        "severity": finding.severity,
        "rule": finding.rule,
        "file": finding.file,
        "line": finding.line,
        "cell": finding.cell,
        "text": finding.text,
    }


def output_document(output: Output) -> dict[str, object]:
    """Return what is said of a file that a run left."""
    return {
        "name": output.name,
        "size_bytes": output.size_bytes,
        "sha256": output.sha256,
        "released": output.released,
        "findings": [finding_document(finding) for finding in output.findings],
    }


def file_document(view: FileEntryView) -> dict[str, object]:
    """Return what is said of a file of the mesh, as its verified record says."""
    return {
        "path": view.path,
        "revision": view.revision,
        "size_bytes": view.size_bytes,
        "stored_size_bytes": view.stored_size_bytes,
        "author": view.author,
        "created": unix_ms_text(view.created_ms),
        "sealed": view.sealed,
        "unverified": view.unverified,
    }


def findings_table(findings: list[dict[str, object]], empty: str) -> Table:
    """Return findings for people."""
    columns = ["severity", "rule", "file", "line", "cell", "text"]
    return Table(columns, [[finding[c] or None for c in columns] for finding in findings], empty)


def outputs_table(outputs: list[dict[str, Any]]) -> Table:
    """Return outputs for people."""
    rows = [
        [output["name"], size_text(output["size_bytes"]), output["released"], len(output["findings"])]
        for output in outputs
    ]
    return Table(["file", "size", "released", "findings"], rows, "The run left no files.")
