"""cicd: commits of a real git repository are built; a fake provider's API is told their status."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.recipes.killing import Attempts

TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"
FILES = tuple(f"shop/{name}.py" for name in ("handlers", "build", "git", "commands", "status"))
WAIT_S = 20


class Repository:
    """A repository with commits, each with a ci.toml of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        ada = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        done = subprocess.run(
            ["git", *ada, "-c", "commit.gpgSign=false", *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, ci: str) -> str:
        (self.folder / "ci.toml").write_text(ci)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message=more")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def api(new_api):
    return new_api({"id": 1})


@pytest.fixture
def project(new_project, api):
    made = new_project("cicd")
    made.replace("repositories.toml", "https://api.github.com", api.url)
    made.replace("repositories.toml", "https://gitlab.com/api/v4", f"{api.url}/api/v4")
    made.replace("repositories.toml", '"var/example" ', f'"{made.folder.parent}/shop.git"')
    made.replace(
        "repositories.toml", "https://gitlab.com/example/site.git", f"{made.folder.parent}/shop.git"
    )
    made.replace("shop/handlers.py", "within=2,", "within=0.2,")
    for name in ("github-token", "gitlab-token"):
        (made.folder / "secrets" / name).write_text(TOKEN + "\n")
    yield made
    made.close()
    for pid in pids_in(made):  # of a build whose test has failed
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def repository(project):
    return Repository(project.folder.parent / "shop.git")


def push_of(sha, ref="refs/heads/main"):
    return {"ref": ref, "after": sha, "deleted": False, "repository": {"full_name": "example/shop"}}


def send(project, endpoint, event_type, payload):
    path = project.folder / "event.json"
    path.write_text(json.dumps(payload))
    project.send(endpoint, "--event", event_type, "--body", str(path))


def states(api):
    return [call.body["state"] for call in api.calls]


def logs(project):
    return [p.read_text() for p in sorted((project.folder / "var" / "builds").glob("*.log"))]


def test_each_kind_of_event_runs_what_the_repository_has_for_it(project, repository, api):
    sha = repository.commit(
        'push = ["echo pushed $CI_REF", "env"]\ntag = ["echo tagged"]\n'
        'pull_request = ["echo pulled"]\nworkflow_run = ["echo ran; exit 3"]\n'
    )
    serving = project.serve()
    shop = {"full_name": "example/shop"}
    site = {"id": 7, "path_with_namespace": "example/site"}
    head = {"sha": sha, "ref": "tea", "repo": shop}
    run = {"head_sha": sha, "head_branch": "main", "head_repository": shop, "conclusion": "success"}
    merge = {
        "id": 99,
        "action": "open",
        "last_commit": {"id": sha},
        "source_branch": "tea",
        "source_project_id": 7,
    }
    ran = {"id": 31, "ref": "main", "sha": sha, "source": "push", "status": "success"}
    sent = [
        ("github", "push", push_of(sha)),
        ("github", "push", push_of(sha, "refs/tags/v1")),
        (
            "github",
            "pull_request",
            {"action": "opened", "pull_request": {"id": 1, "head": head}, "repository": shop},
        ),
        (
            "github",
            "workflow_run",
            {"action": "completed", "workflow_run": run, "repository": shop},
        ),
        (
            "gitlab",
            "Push Hook",
            {"ref": "refs/heads/main", "checkout_sha": sha, "project": site},
        ),
        ("gitlab", "Merge Request Hook", {"object_attributes": merge, "project": site}),
        ("gitlab", "Pipeline Hook", {"object_attributes": ran, "project": site}),
        # None of these is built.
        ("github", "push", push_of("0" * 40) | {"deleted": True}),
        ("github", "push", push_of(sha) | {"repository": {"full_name": "mallory/shop"}}),
    ]
    api.answers[:] = [403]  # to the first of those that are being built
    for endpoint, event_type, payload in sent:
        send(project, endpoint, event_type, payload)
    for _ in range(7):
        serving.line_with(" done ")
    serving.kill()

    told = {(c.path, c.body.get("context", c.body.get("name"))): c for c in api.calls}
    github, gitlab = (
        f"/repos/example/shop/statuses/{sha}",
        f"/api/v4/projects/example%2Fsite/statuses/{sha}",
    )
    assert {key: call.body["state"] for key, call in told.items()} == {
        (github, "fasthook/push"): "success",
        (github, "fasthook/tag"): "success",
        (github, "fasthook/pull_request"): "success",
        (github, "fasthook/workflow_run"): "failure",
        (gitlab, "fasthook/push"): "success",
        (gitlab, "fasthook/pull_request"): "success",
        (gitlab, "fasthook/workflow_run"): "failed",
    }
    assert len(api.calls) == 14  # first that it is being built
    assert told[github, "fasthook/push"].headers["authorization"] == f"Bearer {TOKEN}"
    assert told[gitlab, "fasthook/push"].headers["private-token"] == TOKEN
    kept = "".join(logs(project))
    assert "pushed refs/heads/main" in kept
    assert "PATH=" in kept
    said = "".join(serving.lines) + serving.out
    assert ": pushed refs/heads/main" in said
    assert "not told that it is pending: ClientResponseError: 403" in said
    assert TOKEN not in kept + said
    assert list((project.folder / "var" / "work").iterdir()) == []


def test_of_one_branch_one_build_at_a_time_and_the_newest_wins(project, repository, api):
    gate = project.folder / "gate"
    os.mkfifo(gate)
    slow = repository.commit(f'push = ["read line < {gate}"]')
    middle, newest = (repository.commit(f'push = ["echo {n}"]') for n in (1, 2))
    serving = project.serve()
    send(project, "github", "push", push_of(slow))
    wait_for(lambda: states(api) == ["pending"])
    for sha in (middle, newest):
        send(project, "github", "push", push_of(sha))
    time.sleep(0.5)  # for longer than they wait for others
    assert states(api) == ["pending"]
    gate.write_text("go\n")
    for _ in range(2):
        serving.line_with(" done ")

    assert states(api) == ["pending", "success"] * 2
    assert [call.path.rpartition("/")[2] for call in api.calls] == [slow, slow, newest, newest]


def test_two_pull_requests_of_one_branch_do_not_disturb_each_other(project, repository, api):
    gate = project.folder / "gate"
    sha = repository.commit(f'pull_request = ["until test -e {gate}; do sleep 0.05; done"]')
    serving = project.serve()
    shop = {"full_name": "example/shop"}
    head = {"sha": sha, "ref": "tea", "repo": shop}
    for number in (1, 2):
        request = {"id": number, "head": head}
        payload = {"action": "opened", "pull_request": request, "repository": shop}
        send(project, "github", "pull_request", payload)
    wait_for(lambda: states(api) == ["pending", "pending"])
    gate.touch()
    for _ in range(2):
        serving.line_with(" done ")
    assert states(api) == ["pending", "pending", "success", "success"]


def wait_for(condition):
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def pids_in(project):
    """Processes that were started for builds."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"FASTHOOK_BUILD={project.folder}".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_a_build_whose_service_is_killed_begins_anew_and_what_it_left_is_ended(
    project, repository, api
):
    count = project.folder / "count"
    script = f"echo begun >> {count}; test $(wc -l < {count}) = 2 || (setsid sleep 987 & sleep 987)"
    sha = repository.commit(f"push = ['{script}']")
    killed = project.serve()
    send(project, "github", "push", push_of(sha))
    wait_for(lambda: count.exists() and len(pids_in(project)) >= 3)
    killed.kill()
    assert len(pids_in(project)) >= 3  # nobody has told them
    again = project.serve()
    again.line_with(" done ")

    assert states(api) == ["pending", "pending", "success"]
    assert count.read_text() == "begun\nbegun\n"
    wait_for(lambda: pids_in(project) == [])


def test_a_status_is_told_again_until_it_is_taken(project, repository, api):
    sha = repository.commit('push = ["true"]')
    event = {"payload": push_of(sha)}
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-github-push", *FILES)
    ) as attempts:
        api.answers[:] = [200, 503, 200]
        attempts.done(event)
        assert states(api) == ["pending", "success", "success"]
        api.calls.clear()
        # What is refused for good is for fasthook to try again; the build is not done again.
        api.answers[:] = [200, 403]
        result = attempts.run(event | {"id": "2"})
        assert "403" in result["error"]
        attempts.done(event | {"id": "2", "attempt": 2})
        assert states(api) == ["pending", "success", "success"]
    assert len(logs(project)) == 2


def kill_between_steps(project, repository, api):
    """An attempt that is killed before its step 1, 2, …, each with a whole one behind it.

    For each: the statuses that were told, and how often the build ran to its end.
    """
    count = project.folder / "count"
    sha = repository.commit(f"push = ['echo built >> {count}']")
    event = {"payload": push_of(sha)}
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-github-push", *FILES)
    ) as attempts:
        steps = attempts.done(event | {"id": "first"})
        for step in range(1, steps + 1):
            api.calls.clear()
            count.unlink(missing_ok=True)
            attempts.run(event | {"id": f"{step}"}, kill_at=step)
            attempts.done(event | {"id": f"{step}", "attempt": 2})
            yield states(api), count.read_text().count("built")


def test_no_build_is_lost_whatever_step_a_kill_comes_before(project, repository, api):
    found = list(kill_between_steps(project, repository, api))

    assert len(found) > 40
    assert all(told[-1] == "success" and built >= 1 for told, built in found)
    assert max(built for _, built in found) == 2  # what is killed at its end is done once more


def test_where_a_result_is_kept_too_early_the_same_kills_find_builds_that_are_lost(
    project, repository, api
):
    """The control: a result that stands there before its build has ended."""
    project.replace(
        "shop/build.py",
        "            result = await _result(",
        "            kept.parent.mkdir(parents=True, exist_ok=True)\n"
        '            _write(kept, Result("success", ""))\n'
        "            result = await _result(",
    )
    with pytest.raises(FileNotFoundError):  # nothing was built
        list(kill_between_steps(project, repository, api))


def test_commands_are_run_by_what_is_configured(project, repository, api):
    project.replace(
        "repositories.toml", "timeout  = 1200", 'run_with = ["env", "AT={work}"]\ntimeout = 9'
    )
    sha = repository.commit('push = ["echo $AT = $PWD"]')
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-github-push", *FILES)
    ) as attempts:
        attempts.done({"payload": push_of(sha)})
    (at, pwd) = logs(project)[0].splitlines()[1].split(" = ")
    assert at == pwd
    assert Path(at).parent == project.folder / "var" / "work"


def test_what_a_build_has_locked_is_removed(project):
    """As a user to whom modes mean something."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom shop import build\n"
        "os.setuid(int(sys.argv[2]))\n"
        "work = Path(sys.argv[1], 'work')\n"
        "(work / 'a' / 'b' / 'c').mkdir(parents=True)\n"
        "(work / 'a' / 'to').symlink_to('/')\n"
        "for path, mode in ((work / 'a' / 'b', 0), (work / 'a', 0o555), (work, 0)):\n"
        "    path.chmod(mode)\n"
        "build._remove(work)\n"
        "print(os.listdir(sys.argv[1]))\n"
    )
    user = os.geteuid() or 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user, -1)
        assert project.python("-c", script, folder, str(user)) == "[]\n"


# --- git ------------------------------------------------------------------------------------------


def build_what_is_evil(project, repository):
    """Two commits that try to run something; the file that it would make."""
    pwned = project.folder / "pwned"
    hook = repository.folder / "hooks" / "post-checkout"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {pwned}\n")
    hook.chmod(0o755)
    (repository.folder / ".gitattributes").write_text("* filter=evil\n")
    (repository.folder / ".gitmodules").write_text(
        f'[submodule "x"]\npath = x\nurl = ext::sh -c touch% {pwned}\n'
    )
    secret = project.folder / "secrets" / "github-token"
    (repository.folder / "link").symlink_to(secret)
    sha = repository.commit('push = ["true"]')
    (repository.folder / "ci.toml").unlink()
    (repository.folder / "ci.toml").symlink_to(secret)
    repository.git("add", ".")
    repository.git("commit", "--quiet", "--message=link")
    link = repository.git("rev-parse", "HEAD")
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-github-push", *FILES)
    ) as attempts:
        attempts.done({"payload": push_of(sha)})
        attempts.done({"payload": push_of(link, f"refs/heads/$(touch {pwned}) --upload-pack=x")})
    return pwned


def users_git(project):
    """A user's configuration of git: with the filter that the repository asks for."""
    path = project.folder / "home" / ".gitconfig"
    path.parent.mkdir()
    pwned = project.folder / "pwned"
    path.write_text(f'[filter "evil"]\n\tsmudge = "touch {pwned}; cat"\n')
    return path


def test_nothing_but_the_commands_runs_of_what_a_repository_holds(project, repository, api):
    """No hooks, no filters, no submodules, no link for ci.toml."""
    project.environment["HOME"] = str(users_git(project).parent)
    pwned = build_what_is_evil(project, repository)

    assert states(api) == ["pending", "success", "pending", "failure"]
    assert not pwned.exists()
    kept = "".join(logs(project))
    assert "ci.toml can not be read" in kept
    assert TOKEN not in kept


@pytest.mark.parametrize("what", ["hook", "filter"])
def test_with_a_configuration_of_git_it_would_run(what, project, repository, api):
    """The control: whoever lets git read one, or has it look for hooks there, runs them."""
    if what == "hook":
        hooks = repository.folder / "hooks"
        project.replace("shop/git.py", "core.hooksPath=/dev/null", f"core.hooksPath={hooks}")
    else:
        of_user = f'"GIT_CONFIG_GLOBAL": "{users_git(project)}"'
        project.replace("shop/git.py", '"GIT_CONFIG_GLOBAL": "/dev/null"', of_user)

    assert build_what_is_evil(project, repository).exists()


def test_the_token_is_for_the_https_url_alone_and_no_argument(project):
    said = project.python(
        "-c",
        "from shop import git; from shop.settings import Repository\n"
        "at = dict(provider='github', api='', token='github-token')\n"
        "for clone in ('https://a.test/x.git', 'ssh://git@a.test/x.git', '/srv/x.git'):\n"
        "    print({k: v for k, v in git._environment(Repository(clone=clone, **at)).items()\n"
        "           if k.startswith(('GIT_CONFIG_KEY', 'GIT_CONFIG_VALUE', 'GIT_ALLOW'))})\n",
    )
    https, ssh, file = map(eval, said.splitlines())
    value = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert https == {
        "GIT_ALLOW_PROTOCOL": "https",
        "GIT_CONFIG_KEY_0": "http.https://a.test/x.git.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {value}",
    }
    assert ssh == {"GIT_ALLOW_PROTOCOL": "ssh"}
    assert file == {"GIT_ALLOW_PROTOCOL": "file"}
