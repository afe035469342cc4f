import subprocess
import sys

import pytest

from flightdeck.cli import main as cli


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_an_unknown_command_is_refused_with_the_known_ones(capsys):
    assert cli.main(["fly"]) == 2
    assert "no command 'fly'; there are: data," in capsys.readouterr().err


def test_a_missing_library_names_its_dependency_group(monkeypatch, capsys):
    def no_polars(name: str):
        raise ModuleNotFoundError("No module named 'polars'", name="polars")

    monkeypatch.setattr(cli.importlib, "import_module", no_polars)
    assert cli.main(["data", "status"]) == 3
    said = capsys.readouterr().err
    assert "dependency group `pipeline`" in said
    assert "requirements/pipeline.txt" in said


def test_a_bug_of_ours_is_not_mistaken_for_a_missing_library(monkeypatch):
    def broken(name: str):
        raise ModuleNotFoundError("No module named 'pipelines.gone'", name="pipelines.gone")

    monkeypatch.setattr(cli.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["data", "status"])


HEAVY = {"sklearn", "feast", "pandas", "mlflow", "bentoml", "locust", "onnxruntime"}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_help_of_a_command_shows_an_example_and_loads_no_heavy_library(name):
    code = (
        "import sys\nfrom flightdeck.cli.main import main\n"
        f"try:\n    main([{name!r}, '--help'])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('HEAVY', sorted({HEAVY} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "HEAVY []" in ran.stdout
    assert "Example" in ran.stdout
    assert f"flightdeck {name}" in ran.stdout
