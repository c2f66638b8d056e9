// http_server: a local server of one body per path, with the faults of real ones.
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";

/** Answers one request. */
export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
) => void;

/** A running server; `url` has no slash at its end. */
export interface TestServer extends AsyncDisposable {
  readonly url: string;
  /** `<path> <range>` of every request. */
  readonly log: string[];
}

/** Serves on a free port of this machine until disposed. */
export async function serve(handler: Handler): Promise<TestServer> {
  const log: string[] = [];
  const server = createServer((request, response) => {
    log.push(`${request.url} ${request.headers.range ?? ""}`);
    response.setHeader("connection", "close");
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    log,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Sends the asked range of `body` as a good server does. */
export function sendRange(body: Uint8Array): Handler {
  return (request, response) => {
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const first = Number(match?.[1]);
    const last = Math.min(Number(match?.[2]), body.length - 1);
    if (match === null || first >= body.length) {
      response.writeHead(416, { "content-range": `bytes */${body.length}` })
        .end();
      return;
    }
    const part = body.slice(first, last + 1);
    response.writeHead(206, {
      "content-length": part.length,
      "content-range": `bytes ${first}-${last}/${body.length}`,
    }).end(part);
  };
}
