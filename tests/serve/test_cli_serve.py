import asyncio
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from serein.cli_serve import serving
from serein.errors import SereinError, UsageError
from serein.recognizer import EmotionRecognizer
from serein.serve import server
from serein.serve.limits import Limits


def test_options_become_limits(served_model, monkeypatch):
    served = []
    monkeypatch.setattr(server.Server, "run", lambda self: served.append((self.config, self._service)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        f"--host 0.0.0.0 --port {port} --max-megabytes 2.5 --max-seconds 9 --decode-seconds 1 --decoders 3 --queue 7"
    )
    assert CliRunner().invoke(serving, [str(served_model), *options.split()]).exit_code == 0
    ((config, service),) = served
    assert (config.host, config.port) == ("0.0.0.0", port)
    assert service.limits == Limits(
        body_bytes=2_500_000, audio_seconds=9.0, timeline_seconds=90.0, decode_seconds=1.0, decoders=3, queue=7
    )


GREATEST = {"--max-megabytes": 2000, "--max-seconds": 86_400, "--decode-seconds": 3600}


@pytest.mark.parametrize("option", GREATEST)
@pytest.mark.parametrize("value", ["inf", "nan", "more"])
def test_a_limit_that_is_none_is_refused(option, value):
    refused = CliRunner().invoke(serving, ["model", option, str(GREATEST[option] + 1) if value == "more" else value])
    assert refused.exit_code == 2
    assert f"Invalid value for '{option}'" in refused.stderr


def test_a_server_with_the_greatest_limits_decodes(served_model, monkeypatch):
    services = []
    monkeypatch.setattr(server.Server, "run", lambda self: services.append(self._service))
    options = [str(word) for pair in GREATEST.items() for word in pair]
    assert CliRunner().invoke(serving, [str(served_model), "--port", "0", *options]).exit_code == 0
    (service,) = services

    async def start() -> None:
        async with service.running():  # raises where no process decodes a second of silence
            pass

    asyncio.run(start())


def test_where_processes_have_no_limits_the_server_says_so():
    script = "import sys; sys.modules['resource'] = None; from serein.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "serve", "model"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "use Linux or macOS" in done.stderr


def test_a_model_on_the_hub_may_be_asked_for_by_its_revision(monkeypatch):
    asked = []

    def load(model: str, **how: object) -> None:
        asked.append((model, how["revision"]))
        raise UsageError("enough")

    monkeypatch.setattr(EmotionRecognizer, "from_pretrained", load)
    CliRunner().invoke(serving, ["somebody/model", "--revision", "v2", "--port", "0"])
    assert asked == [("somebody/model", "v2")]


def test_a_port_that_cannot_be_had_is_told_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(EmotionRecognizer, "from_pretrained", lambda *_, **__: pytest.fail("it is loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = CliRunner().invoke(serving, ["model", "--port", str(port)]).exception
    assert (str(taken), taken.exit_code) == (f"port {port} is taken; give another with --port", 1)
    elsewhere = CliRunner().invoke(serving, ["model", "--host", "192.0.2.1"]).exception
    assert isinstance(elsewhere, SereinError)
    assert str(elsewhere).startswith("cannot listen at 192.0.2.1, port 8000: ")
    nowhere = CliRunner().invoke(serving, ["model", "--host", ".."]).exception
    assert (type(nowhere), str(nowhere)) == (
        SereinError,
        "cannot listen at '..': it is no name of a host; give another with --host",
    )


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "serein.serve.app")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(serving, ["model"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == "serving needs fastapi: pip install 'serein[serve]'"
