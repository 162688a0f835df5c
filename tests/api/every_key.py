#!/usr/bin/env python3
"""Asks everything that the OpenAPI document allows, and what it does not, with a key of each kind.

    every_key.py URL ROUTES [EXAMPLES]

ROUTES is a file: the table of who may use which route, as JSON (`method`, `path`, `allow`: scopes, "public", "operator", "node" or
"token"; `object`). The operator's key is in LIPSTREAM_KEY. Of each operation EXAMPLES (2) that the document allows and half as many that it
does not are sent with each key: the operator's, those of a tenant with one scope each, another tenant's with all scopes, a session's
token of LiveAvatar's form, and none. Routes that the document does not have are asked once with each. Every answer must be one that the document has, with the form that it
says, and no fault of the server; a key that may not must be refused, and one that may must not be.
"""

import json
import os
import sys
import time
from collections import Counter

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

# Random bytes are no speech and no video, and a document cannot say what is; the others ask again by themselves, as we do.
LEFT_OUT = {"positive_data_acceptance", "negative_data_rejection", "ignored_auth", "unsupported_method", "use_after_free",
            "ensure_resource_availability", "object_level_authorization", "missing_required_header", "max_response_time"}
SCOPES = ["operate", "speak", "watch", "publish"]
SESSION = "known"
# What would end the server that is asked.
ENDING = {("POST", "/api/v1/drain")}


class Server:
    def __init__(self, url, operator):
        self.url, self.operator, self.http = url, operator, requests.Session()

    def ask(self, method, path, key, status, body=None):
        answer = self.http.request(method, self.url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        if answer.status_code != status:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text}, not {status}")
        return answer.json() if answer.content else None

    def key(self, tenant, scopes):
        return self.ask("POST", "/api/v1/keys", self.operator, 201, {"tenant": tenant, "scopes": scopes})["key"]

    def keys(self):
        """By name: the key, what it may (None: everything), and whether the known session is its own."""
        for tenant in ("anna", "ben"):
            self.ask("PUT", f"/api/v1/tenants/{tenant}", self.operator, 200, {"sessions": 2})
        keys = {"operator": (self.operator, None, True)}
        keys |= {scope: (self.key("anna", [scope]), {scope}, True) for scope in SCOPES}
        keys["another tenant's"] = (self.key("ben", SCOPES), set(SCOPES), False)
        self.ask("POST", "/api/v1/sessions", keys["operate"][0], 201, {"id": SESSION, "graph": "relay"})
        token = self.ask("POST", "/api/v1/liveavatar/sessions/token", keys["operate"][0], 200,
                         {"mode": "LITE", "avatar_id": "demo"})["data"]["session_token"]
        keys["session's token"] = (token, {"token"}, False)
        keys["none"] = (None, set(), False)
        return keys


def allowed(route, may):
    """Whether a key with these scopes may use a route; None where the handler alone knows."""
    allow = route["allow"]
    if allow == "public":
        return True
    if allow == "token":
        # Keys that are no token are told so by the handler; one that has ended its session is none any more.
        return True if may and "token" in may and route["path"].endswith("/start") else None
    if may is None:
        return allow != "node"
    return isinstance(allow, list) and bool(may & set(allow))


class Judge:
    def __init__(self, server, routes, examples):
        self.server, self.examples = server, examples
        self.routes = {(route["method"], route["path"]): route for route in routes}
        self.keys = server.keys()
        load_all_checks()
        self.left_out = [check for check in CHECKS.get_all() if check.__name__ in LEFT_OUT]
        self.faults, self.asked = Counter(), Counter()

    def fault(self, case, name, answer, text):
        self.faults[f"{case.method} {case.operation.path} with key `{name}`: {answer.status_code}: {text}"] += 1

    def others(self, documented):
        """Routes without a document: WHIP and WHEP, pages and what is for machines."""
        for (method, path), route in self.routes.items():
            if (method, path) in documented:
                continue
            place = path.replace("{session}", SESSION).replace("{", "").replace("}", "")
            for name, (key, may, own) in self.keys.items():
                headers = {"Content-Type": "application/sdp", **({"Authorization": f"Bearer {key}"} if key else {})}
                answer = self.server.http.request(method, self.server.url + place, data=None if method == "GET" else b"v=0\r\n",
                                                  headers=headers, timeout=60)
                self.asked[answer.status_code] += 1
                self.judge(f"{method} {path}", name, answer, route)

    def judge(self, what, name, answer, route, of_known=True):
        """Whether a key was refused that may not, or not that may."""
        _, may, own = self.keys[name]
        status, may = answer.status_code, allowed(route, may)
        wrong = None
        # 503 has a cause that the caller can wait for, and is documented as such.
        if status >= 500 and status != 503:
            wrong = "a fault of the server"
        elif may is False and status not in (401, 403, 404):
            wrong = "what it may not is not refused"
        elif may is True and status in (401, 403):
            wrong = "what it may is refused"
        elif route["object"] == "session" and of_known and not own and status < 400:
            wrong = "another's session is there"
        if wrong:
            self.faults[f"{what} with key `{name}`: {status}: {wrong}: {answer.content[:200]!r}"] += 1

    def send(self, case, name):
        key = self.keys[name][0]
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = case.call(headers=headers, session=self.server.http, timeout=60)
        status = answer.status_code
        self.asked[status] += 1
        try:
            case.validate_response(answer, excluded_checks=self.left_out)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.fault(case, name, answer, f"{failure.title}: {str(failure.message)[:200]}")
        of_known = SESSION in (case.path_parameters or {}).values()
        self.judge(f"{case.method} {case.operation.path}", name, answer, self.routes[(case.method.upper(), case.operation.path)], of_known)
        if status == 201 and case.operation.path == "/api/v1/sessions":
            made = answer.json()["id"]
            self.server.ask("DELETE", f"/api/v1/sessions/{made}", self.server.operator, 204)

    def operation(self, operation):
        place = (operation.method.upper(), operation.path)
        number = 0

        def one(case):
            nonlocal number
            number += 1
            if "id" in (case.path_parameters or {}) and "/sessions/" in case.operation.path and number % 2 and place[0] != "DELETE":
                # A name at random is hardly ever one that is there.
                case.path_parameters["id"] = SESSION
            for name, (_, may, _) in self.keys.items():
                if place in ENDING and allowed(self.routes[place], may):
                    continue
                self.send(case, name)

        for mode, examples in ((GenerationMode.POSITIVE, self.examples), (GenerationMode.NEGATIVE, (self.examples + 1) // 2)):
            run = given(case=operation.as_strategy(generation_mode=mode))(one)
            run = settings(max_examples=examples, database=None, derandomize=self.examples < 10, deadline=None,
                           suppress_health_check=list(HealthCheck), phases=[Phase.generate], verbosity=Verbosity.quiet)(run)
            try:
                run()
            except Unsatisfiable:
                # It takes nothing that could be wrong.
                pass


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    url, routes = sys.argv[1], json.load(open(sys.argv[2]))
    examples = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    began = time.monotonic()
    judge = Judge(Server(url, os.environ["LIPSTREAM_KEY"]), routes, examples)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    documented = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        documented.add((operation.method.upper(), operation.path))
        judge.operation(operation)
    judge.others(documented)
    answers = ", ".join(f"{number} of {status}" for status, number in sorted(judge.asked.items()))
    print(f"{len(documented)} operations and {len(judge.routes) - len(documented)} other routes, {len(judge.keys)} keys, {sum(judge.asked.values())} requests in {time.monotonic() - began:.0f} s: {answers}")
    for text, number in judge.faults.most_common():
        print(f"FAULT ({number} times) {text}")
    if "known" not in [s["id"] for s in judge.server.ask("GET", "/api/v1/sessions", judge.server.operator, 200)]:
        print("FAULT the session of the test is gone")
        sys.exit(1)
    sys.exit(1 if judge.faults else 0)


if __name__ == "__main__":
    main()
