"""AWS's own clients, the aws command line and boto3, with every answer held against AWS's description.

boto3 passes over what it does not know; here a field that AWS has not, one that AWS requires and is
missing, a status or an error's name of another kind is a failure.
"""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys

import awscli.clidriver
import boto3
import botocore.config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
AWS = os.path.join(os.path.dirname(sys.executable), "aws")
ROLE = "arn:aws:iam::123456789012:role/IoTLogsRole"
# Operations of which an answer was held against AWS's description.
CHECKED = set()
# Errors that any operation may have.
COMMON = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 400,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
}
TYPES = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "timestamp": (int, float),
    "list": list,
    "map": dict,
    "structure": dict,
}


def check_shape(value, shape, path):
    """Every member is known to AWS and of its type."""
    kind = TYPES[shape.type_name]
    assert isinstance(value, kind) and not (kind is int and isinstance(value, bool)), (path, value)
    if shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{path}: AWS knows no {unknown}"
        missing = set(shape.required_members) - set(value)
        assert not missing, f"{path}: {missing} is missing"
        for name, member in value.items():
            check_shape(member, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for member in value:
            check_shape(member, shape.member, f"{path}[]")
    elif shape.type_name == "map":
        for name, member in value.items():
            check_shape(name, shape.key, path)
            check_shape(member, shape.value, f"{path}.{name}")
    elif getattr(shape, "enum", None):
        assert value in shape.enum, f"{path}: {value} is none of {shape.enum}"


def check_answer(http, model):
    """The raw answer, before boto3 makes something of it."""
    if http.status_code < 300:
        has_members = model.output_shape is not None and model.output_shape.members
        if not has_members:
            assert http.content == b"", f"{model.name}: AWS answers nothing, not {http.content}"
        else:
            check_shape(json.loads(http.content), model.output_shape, model.name)
        assert http.status_code == 200, (model.name, http.status_code)
    else:
        name, body = http.headers["x-amzn-ErrorType"], json.loads(http.content)
        known = {shape.name: shape for shape in model.error_shapes}
        assert name in known or name in COMMON, f"{model.name} has no error {name}: {body}"
        if name in known:
            check_shape(body, known[name], f"{model.name}.{name}")
            status = known[name].metadata["error"]["httpStatusCode"]
        else:
            status = COMMON[name]
        assert http.status_code == status, (model.name, name, http.status_code)
        assert isinstance(body["message"], str) and body["message"]
    assert not http.content or http.headers["Content-Type"] == "application/json", http.headers
    CHECKED.add(model.name)


def client(config=None, **options):
    """A client of boto3 whose every answer is checked; what AWS refuses is sent all the same."""
    config = botocore.config.Config(parameter_validation=False).merge(config or botocore.config.Config())
    made = boto3.client("iot", config=config, **options)
    original = made._make_request

    def asked(operation_model, request_dict, request_context):
        http, parsed = original(operation_model, request_dict, request_context)
        check_answer(http, operation_model)
        return http, parsed

    made._make_request = asked
    return made


def run_process(arguments):
    done = subprocess.run([AWS, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def run_here(arguments):
    """What the executable does, without a new process for each command."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = driver().main(arguments)
    return code, out.getvalue(), errors.getvalue()


@functools.cache
def driver():
    return awscli.clidriver.create_clidriver()


def aws(line, *more, fails=None, run=run_here):
    """Runs `aws iot <line>`: what it prints as JSON, or the message of the error that it `fails` with."""
    code, out, errors = run(["iot", *line.split(), *more, "--output", "json"])
    if fails:
        prefix = f"({fails}) when calling the "
        assert code in (254, 255) and prefix in errors, (line, code, out, errors)
        return errors.split(prefix)[1].split(": ", 1)[1].strip()
    assert code == 0 and not errors, (line, code, errors)
    return json.loads(out) if out.strip() else None


def commands():
    """Runs each line of standard input; answers each by a line."""
    for line in sys.stdin:
        aws(line)
        print("done", flush=True)


def refused(name, call, **arguments):
    """The message of the error, which must be of this class."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        got = error.response["Error"]
        assert got["Code"] == name, f"{name} expected: {got}"
        if name not in COMMON:
            assert type(error).__name__ == name, type(error)
        return got["Message"]
    raise AssertionError(f"{name} expected: {arguments} gave {answer}")
