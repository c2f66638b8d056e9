/** The module that `generateInWorkers` starts: paints one request on the cpu backend. Not to be imported. */
import { open } from "./model.ts";
import type { WorkerAnswer, WorkerTask } from "./workers.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<WorkerTask>) => void;
  postMessage(answer: WorkerAnswer): void;
};

scope.onmessage = async ({ data: { location, request } }) => {
  try {
    using model = await open(location, { backend: "cpu" });
    const result = await model.generate(request, {
      onPass: (done, total) => scope.postMessage({ pass: { done, total } }),
      onStep: ({ preview: _, ...step }) => scope.postMessage({ step }),
    });
    scope.postMessage({ result });
  } catch (error) {
    const { name, message, stack = "" } = error instanceof Error
      ? error
      : new Error(String(error));
    scope.postMessage({ error: { name, message, stack } });
  }
};
