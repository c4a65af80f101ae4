"""Images start as their pods start them: own user, read-only root, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_builder import SERVICES, Image
from lock_file import locked

ROOT = Path(__file__).parents[2]
_TELEMETRY = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
every_service = pytest.mark.parametrize("image", SERVICES, indirect=True)


@every_service
def test_service_starts_and_names_the_setting_that_is_wrong(image: Image) -> None:
    variable = f"SYFTMESH_{image.name.upper()}_DRAIN_S"
    done = image.run(*image.config["Entrypoint"], env={variable: "never"})

    assert done.returncode == 2, done.stderr
    assert variable in done.stderr


@every_service
def test_service_is_the_one_of_the_image(image: Image) -> None:
    done = image.run(
        "python", "-P", "-m", f"syftmesh_{image.name}", env={f"SYFTMESH_{image.name.upper()}_DRAIN_S": "x"}
    )

    assert done.returncode == 2, done.stderr
    assert image.env["SYFTMESH_SERVICE"] == image.name


@every_service
def test_health_says_which_variable_is_missing_and_that_nobody_answers(image: Image) -> None:
    command = image.config["Healthcheck"]["Test"][1:]
    variable = f"SYFTMESH_{image.name.upper()}_HEALTH_LISTEN"
    untold = image.run(*command)
    unserved = image.run(*command, env={variable: "0.0.0.0:8086"})

    assert (untold.returncode, variable in untold.stderr) == (2, True), untold.stderr
    assert unserved.returncode == 1, unserved.stderr


@pytest.mark.parametrize("image", [*SERVICES, "tools", "job"], indirect=True)
def test_root_cannot_be_written(image: Image) -> None:
    script = (
        "import pathlib, sys\nfor place in sys.argv[1:]:\n    pathlib.Path(place, 'probe').write_text('x')"
    )
    allowed = image.run("python", "-c", script, "/tmp")
    refused = image.run("python", "-c", script, "/opt/venv")

    assert allowed.returncode == 0, allowed.stderr
    assert "Read-only file system" in refused.stderr


@pytest.mark.parametrize("image", [*SERVICES, "tools", "job"], indirect=True)
def test_flower_reports_nothing_home(image: Image) -> None:
    assert _TELEMETRY.items() <= image.env.items()


@pytest.mark.parametrize("image", [*SERVICES, "tools", "job"], indirect=True)
def test_certificates_of_public_authorities_are_found(image: Image) -> None:
    done = image.run("python", "-c", "import ssl; print(len(ssl.create_default_context().get_ca_certs()))")

    assert int(done.stdout) > 100, done.stderr


@pytest.mark.parametrize("image", ["tools"], indirect=True)
def test_tools_have_the_command_and_the_programs_of_the_charts(image: Image) -> None:
    by_entry = image.run(*image.config["Entrypoint"], "--help")
    by_path = image.run("syftmesh", "site", "--help")
    bootstrap = image.run("python", "-m", "syftmesh_cluster.bootstrap", "--config", "/nowhere")

    assert (by_entry.returncode, by_path.returncode) == (0, 0), by_entry.stderr + by_path.stderr
    assert "syftmesh" in by_entry.stdout
    assert bootstrap.returncode == 2
    assert "nowhere" in bootstrap.stderr


@pytest.mark.parametrize("image", ["agent", "runner", "tools"], indirect=True)
def test_sites_have_the_sandbox_for_hosts_without_kubernetes(image: Image) -> None:
    done = image.run("bwrap", "--version")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("image", ["job"], indirect=True)
def test_jobs_find_the_libraries_they_are_promised(image: Image) -> None:
    names = "numpy, numpy.testing, pandas, sklearn.linear_model, sklearn.ensemble, pyarrow.parquet, pyarrow.dataset, "
    names += "scipy.stats, scipy.optimize, flwr.clientapp, flwr.serverapp, safetensors.numpy"
    use = "frame = pandas.DataFrame({'x': [1.0, 2.0, 4.0]}); frame.to_parquet('/tmp/x.parquet'); "
    use += "print(pandas.read_parquet('/tmp/x.parquet').x.sum(), "
    use += "sklearn.linear_model.LinearRegression().fit(frame, frame.x).predict(frame).round(3).tolist())"
    done = image.run("python", "-c", f"import {names}\n{use}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7.0 [1.0, 2.0, 4.0]"


@pytest.mark.parametrize("image", ["job"], indirect=True)
def test_jobs_have_the_versions_of_the_services_and_nothing_of_a_site(image: Image) -> None:
    job, runner = (dict(locked(ROOT / f"requirements/{name}.lock")) for name in ("job", "runner"))
    different = {name for name in job.keys() & runner.keys() if job[name] != runner[name]}
    names = ("mesh", "syftmesh", "syftmesh_kit", "nats")
    script = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"

    assert different == set()
    assert image.run("python", "-c", script).stdout.strip() == "[]"


@pytest.mark.parametrize("image", ["job"], indirect=True)
def test_jobs_have_the_programs_that_pods_start_with(image: Image) -> None:
    source = ROOT / "libs/executor/src/syftmesh_executor/pod"
    there = {path.name: path.read_bytes() for path in (image.root / "opt/syftmesh/pod").glob("*.py")}

    assert there == {path.name: path.read_bytes() for path in source.glob("*.py")}


@pytest.mark.parametrize("image", ["proxy"], indirect=True)
def test_proxy_starts_without_a_configuration_and_says_so(image: Image) -> None:
    program = image.config["Entrypoint"]
    done = image.run(*program, "-t")
    version = image.run(*program, "-V")

    assert done.returncode == 0, done.stderr
    assert "--with-http_v2_module" in version.stderr
    assert "started without a configuration" in (image.root / "etc/nginx/nginx.conf").read_text()
    assert image.config["StopSignal"] == "SIGQUIT"
