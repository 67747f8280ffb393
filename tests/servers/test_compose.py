"""The commands of the example with Docker, without it: two replicas and their Redis answer each notification once."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import httpx

from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.adapters.servers import running
from tests.conftest import free_port
from tests.examples.test_compose import FOLDER, gate_command, redis_command
from tests.servers.processes import ServerProcess, ordinary_user, own_folder
from tests.servers.redis import Redis


def test_two_replicas_answer_each_notification_once(
    fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(FOLDER, tmp_path / "compose"))
    user, port = ordinary_user(), free_port()
    with own_folder(user) as folder, contextlib.ExitStack() as stack:
        arguments = [*redis_command(), "--port", str(port), "--bind", "127.0.0.1"]
        redis = Redis(ServerProcess(arguments, folder=folder, user=user), port)
        redis.start()
        stack.callback(redis.stop)
        environment = {
            "OPTIMOVE_API_KEY": fake_optimove.api_key,
            "OPTIMOVE_BASE_URL": optimove_url,
            "OPTIMOVE_WEBHOOK_SECRET": str(fake_optimove.secret),
            "CLAIMS_URL": redis.url,
        }
        program, *options = gate_command()
        served = options[: options.index("--host")], options[options.index("--port") + 2 :]
        replicas = [
            stack.enter_context(
                running(
                    lambda fd: ["-m", program, *served[0], "--fd", str(fd), *served[1]],
                    log=tmp_path / f"log-{number}",
                    environment=environment,
                    directory=copied,
                )
            )
            for number in range(2)
        ]
        for replica in replicas:
            assert httpx.get(f"{replica.url}/ready", timeout=60).text == "ready"
        for user_id in ("C234638", "C100001"):
            payload = notification(user_id, timeout_ms=30_000)
            question = fake_optimove.expect(payload)
            request = signed_request(payload, secret=fake_optimove.secret, path="/optimove")
            for replica in replicas:
                url = f"{replica.url}/optimove"
                answer = httpx.post(url, content=request.body, headers=list(request.headers), timeout=60)
                assert answer.status_code == 200, replica.printed()
            assert question.approved == (user_id == "C234638")
            assert not question.ignored
        assert [("duplicate" in replica.printed(), "approved" in replica.printed()) for replica in replicas] == [
            (False, True),
            (True, False),
        ]
