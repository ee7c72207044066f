"""A server on this machine that speaks the Hugging Face Hub's calls: files of a revision, and uploads in commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class HubServer(ThreadingHTTPServer):
    """Repositories as {name: {revision: {file: bytes}}}, and how to fail.

    requests : (method, path, headers) of each request
    answers : statuses that the next requests get instead of an answer, in turn
    status : what all requests get once `answers` are used up; None: the truth
    reason : X-Error-Message of those
    code : X-Error-Code of those
    headers : further headers of those
    token : if set, what does not send it is refused with 401
    cut : how many more downloads of model.safetensors end in the middle
    truth : if set, the content that model.safetensors is said to hash like
    talking : requests wait until it is set
    halfway, going_on : set in the middle of a download of model.safetensors, which then waits until the other is set
    """

    daemon_threads = True
    commit_header = "X-Repo-Commit"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.uploaded, self.requests, self.created = {}, {}, [], {}
        self.answers, self.status, self.reason, self.code, self.headers = [], None, "", "", {}
        self.token, self.cut, self.truth = None, 0, None
        self.talking, self.halfway, self.going_on = threading.Event(), threading.Event(), threading.Event()
        self.talking.set()
        self.going_on.set()

    def publish(self, name, files, revision="main"):
        """Make `files` the content of a branch; returns the commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository = self.repositories.setdefault(name, {})
        repository[revision] = repository[commit] = dict(files)
        return commit

    def asked(self, method, part=""):
        """Paths of the requests by one method that contain `part`."""
        return [path for verb, path, _ in self.requests if verb == method and part in path]

    def handle_error(self, request, client_address):
        pass  # who hangs up in the middle of an answer is no news


class Handler(BaseHTTPRequestHandler):
    def handle_one_call(self):
        server = self.server
        self.content = self.read_content()
        server.requests.append((self.command, self.path, dict(self.headers)))
        server.talking.wait(20)
        status = server.answers.pop(0) if server.answers else server.status
        if status is not None:
            self.refuse(status, server.code, server.reason)
        elif not self.allowed():
            self.refuse(401, server.code or "RepoNotFound", server.reason)
        elif self.path.startswith(("/api/", "/lfs/")) or ".git/" in self.path:
            self.write_call()
        else:
            self.read_call()

    do_HEAD = do_GET = do_POST = do_PUT = handle_one_call  # noqa: N815

    def allowed(self):
        """Whether the token is right; large files go to a store with addresses that let in whoever knows them."""
        expected = f"Bearer {self.server.token}"
        return self.server.token is None or self.path.startswith("/lfs/") or self.headers["Authorization"] == expected

    def read_content(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def read_call(self):
        """/owner/name/resolve/revision/file."""
        owner, name, _, revision, file = unquote(self.path.lstrip("/")).split("/", 4)
        repository = self.server.repositories.get(f"{owner}/{name}")
        if repository is None:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif revision not in repository:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif file not in repository[revision]:
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            commit = next(c for c, files in repository.items() if len(c) == 40 and files == repository[revision])
            self.send_file(repository[revision][file], commit, large=file.endswith(".safetensors"))

    def send_file(self, content, commit, large):
        etag = hashlib.sha256(self.server.truth or content) if large else hashlib.sha1(content)
        begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        rest = content[begin:]
        headers = {self.server.commit_header: commit, "ETag": f'"{etag.hexdigest()}"', "Content-Length": str(len(rest))}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.start(206 if begin else 200, headers)
        if self.command == "HEAD":
            return
        half = len(rest) // 2
        self.wfile.write(rest[:half])
        if large:
            self.server.halfway.set()
            self.server.going_on.wait(20)
            if self.server.cut:
                self.server.cut -= 1
                return
        self.wfile.write(rest[half:])

    def write_call(self):
        server, parts = self.server, self.path.split("?")[0].split("/")
        if self.path.startswith("/lfs/"):
            server.uploaded[parts[2]] = self.content
            return self.answer({})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(self.content)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            server.repositories.setdefault(name, {"main": {}})
            server.created[name] = asked
            return self.answer({"url": f"{server.url}/{name}"})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(self.content)["objects"]
            actions = {"upload": {"href": f"{server.url}/lfs/{objects[0]['oid']}"}}
            return self.answer({"objects": [{**item, "actions": actions} for item in objects]})
        name, call, revision = "/".join(parts[3:5]), parts[5], parts[6]
        if call == "branch":
            server.repositories[name].setdefault(revision, {})
            return self.answer({})
        if call == "preupload":
            modes = {True: "lfs", False: "regular"}
            files = [file["path"] for file in json.loads(self.content)["files"]]
            answer = [
                {"path": f, "uploadMode": modes[f.endswith(".safetensors")], "shouldIgnore": False} for f in files
            ]
            return self.answer({"files": answer})
        assert call == "commit"
        files = dict(server.repositories[name][revision])
        for line in map(json.loads, self.content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = server.uploaded[value["oid"]]
        commit = server.publish(name, files, revision)
        return self.answer({"commitUrl": f"{server.url}/{name}/commit/{commit}", "commitOid": commit})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.start(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def refuse(self, status, code, reason):
        headers = {"X-Error-Code": code, "X-Error-Message": reason, **self.server.headers}
        self.start(status, {**{k: v for k, v in headers.items() if v}, "Content-Length": "0"})

    def start(self, status, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A HubServer at work."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.talking.set()
            server.going_on.set()
            server.shutdown()
            thread.join()
