// fake_hub: a local server that answers as a Hugging Face hub does, and the host that stores large files.
import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { serve, type TestServer } from "./http_server.ts";

/** A commit, for servers and caches. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** Sends a body as a good server does: all of it, or the range that was asked for. */
export function sendBody(
  request: IncomingMessage,
  response: ServerResponse,
  body: Uint8Array,
): void {
  const match = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
  const first = Number(match?.[1] ?? 0);
  if (match !== null && first >= body.length) {
    response.writeHead(416, { "content-range": `bytes */${body.length}` })
      .end();
    return;
  }
  response.writeHead(match ? 206 : 200, {
    "content-length": body.length - first,
    ...(match
      ? {
        "content-range": `bytes ${first}-${body.length - 1}/${body.length}`,
      }
      : {}),
  }).end(request.method === "HEAD" ? undefined : body.slice(first));
}

/** The name of a blob: sha256 of a large file, git's sha1 of a small one. */
export function etagOf(body: Uint8Array, large: boolean): string {
  return large
    ? createHash("sha256").update(body).digest("hex")
    : createHash("sha1").update(`blob ${body.length}\0`).update(body)
      .digest("hex");
}

/** A hub with one repository. */
export interface FakeHub extends AsyncDisposable {
  readonly hub: TestServer;
  readonly cdn: TestServer;
  /** Authorization headers that each host was sent, once each. */
  readonly tokens: { readonly hub: Set<string>; readonly cdn: Set<string> };
}

/** Answers in place of the hub or the storing host; false leaves it to them. */
export type Fault = (
  request: IncomingMessage,
  response: ServerResponse,
  where: "hub" | "cdn",
) => boolean;

/**
 * Serves `repo` until disposed. `.safetensors` and `.bin` files lie on the other host.
 *
 * @param names What the list of files says. Default the files.
 */
export async function fakeHub(
  repo: string,
  files: Readonly<Record<string, Uint8Array>>,
  {
    fault = () => false,
    names = Object.keys(files),
    revisions = ["main"],
    commit = COMMIT,
  }: {
    readonly fault?: Fault;
    readonly names?: readonly string[];
    readonly revisions?: readonly string[];
    readonly commit?: string;
  } = {},
): Promise<FakeHub> {
  const tokens = { hub: new Set<string>(), cdn: new Set<string>() };
  const note = (request: IncomingMessage, where: "hub" | "cdn") => {
    const { authorization } = request.headers;
    if (authorization !== undefined) tokens[where].add(authorization);
  };
  const fail = (response: ServerResponse, code: string) =>
    response.writeHead(404, { "x-error-code": code }).end();
  const cdn = await serve((request, response) => {
    note(request, "cdn");
    if (fault(request, response, "cdn")) return;
    const body = files[decodeURIComponent(request.url!.slice(1))];
    if (body === undefined) fail(response, "EntryNotFound");
    else sendBody(request, response, body);
  });
  const hub = await serve((request, response) => {
    note(request, "hub");
    if (fault(request, response, "hub")) return;
    const { pathname } = new URL(request.url!, "http://x");
    const info = /^\/api\/models\/(.+)\/revision\/([^/]+)$/.exec(pathname);
    if (info) {
      if (info[1] !== repo) return fail(response, "RepoNotFound");
      if (![...revisions, commit].includes(decodeURIComponent(info[2]!))) {
        return fail(response, "RevisionNotFound");
      }
      const siblings = names.map((rfilename) => ({ rfilename }));
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ id: repo, sha: commit, siblings }));
      return;
    }
    const file = new RegExp(`^/${repo}/resolve/([^/]+)/(.+)$`).exec(pathname);
    const name = file ? decodeURIComponent(file[2]!) : "";
    const body = Object.hasOwn(files, name) ? files[name] : undefined;
    if (body === undefined) return fail(response, "EntryNotFound");
    const large = /\.(?:safetensors|bin)$/.test(name);
    const etag = `"${etagOf(body, large)}"`;
    response.setHeader("x-repo-commit", commit);
    if (!large) {
      response.setHeader("etag", etag);
      return sendBody(request, response, body);
    }
    response.writeHead(302, {
      "x-linked-etag": etag,
      "x-linked-size": body.length,
      location: `${cdn.url}/${encodeURIComponent(name)}`,
    }).end();
  });
  return {
    hub,
    cdn,
    tokens,
    [Symbol.asyncDispose]: async () => {
      await hub[Symbol.asyncDispose]();
      await cdn[Symbol.asyncDispose]();
    },
  };
}
