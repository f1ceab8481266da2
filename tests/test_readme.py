import os
import re
import shutil
import subprocess
import sys

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/official.md", "docs/steering.md")
SCRIPT = ROOT / ".ci" / "run"


def blocks(*languages):
    """Returns the fenced blocks of the README in some languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def shell_lines():
    text = "\n".join(blocks("bash", "sh", "shell", "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run(*command, folder=ROOT):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def run_script(script):
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=script.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def test_the_readme_opens_with_the_two_commands():
    first, second = shell_lines()[:2]
    assert re.fullmatch(r"pip install -c constraints\.txt \. && aion demo( .*)?", first)
    assert re.fullmatch(r'pip install -c constraints\.txt "\.\[test\]" && pytest( .*)?', second)
    opening = README.read_text(encoding="utf-8").splitlines()[:60]
    assert [line for line in opening if line.endswith(second)]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_ci_runs_the_commands_of_the_readme():
    assert os.access(SCRIPT, os.X_OK)
    done = run("bash", str(SCRIPT), "--commands")
    assert done.returncode == 0, done.stderr
    commands = [re.split(r"\s+#", line)[0].strip() for line in done.stdout.splitlines()]
    assert commands == [re.split(r"\s+#", line)[0].strip() for line in shell_lines()[:2]]
    script = SCRIPT.read_text()
    for i in range(2):
        assert f'-c "${{commands[{i}]}}"' in script


def test_the_verbs_in_the_readme_exist():
    verbs = set(re.findall(r"(?:^|&& )aion ([a-z]+)", "\n".join(shell_lines()), re.MULTILINE))
    assert "demo" in verbs
    for verb in verbs:
        done = run(sys.executable, "-m", "aion", verb, "--help")
        assert done.returncode == 0, f"aion {verb}: {done.stderr}"
        assert "usage: aion" in done.stdout


def test_the_python_of_the_readme_runs(tmp_path):
    code = "\n".join(blocks("python"))
    assert "aion" in code
    script = tmp_path / "readme.py"
    script.write_text(f"import torch\ntorch.set_num_threads(1)\n{code}", encoding="utf-8")
    done = run_script(script)
    assert done.returncode == 0, done.stderr


def test_the_first_python_of_the_page_on_steering_runs(tmp_path):
    text = (ROOT / "docs" / "steering.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL).group(1)
    script = tmp_path / "steering.py"
    script.write_text(f"import torch\ntorch.set_num_threads(1)\n{code}", encoding="utf-8")
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    ratios = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert ratios == sorted(ratios)
    assert len(ratios) == 3


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.startswith("# ")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [target for target in targets if "://" not in target and not ((ROOT / page).parent / target).exists()]
    assert not missing
