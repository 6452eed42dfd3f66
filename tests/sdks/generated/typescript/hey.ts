// Calls of a client that @hey-api/openapi-ts makes; prints what comes of them as JSON.
import { batch, crossEntropy, evaluate } from "./client/index";
import { client } from "./client/client.gen";

declare const process: { argv: string[] };

// generated code imports without extensions, as bundlers and CommonJS allow, which has no await at the top
async function main(): Promise<void> {
  client.setConfig({ baseUrl: process.argv[2]! });

  const logits = [[2, 1, 0.1]];
  const { data } = await crossEntropy({ body: { inputs: { logits, targets: [0] } }, throwOnError: true });
  const generic = await evaluate({
    path: { name: "mse" },
    body: { inputs: { predictions: [3], targets: [0] } },
    throwOnError: true,
  });
  const item = { loss: "huber", inputs: { predictions: [5], targets: [0] } };
  const many = await batch({
    body: {
      items: [item, { ...item, params: {} }],
      defaults: { params: { delta: 3 }, gradients: false, dtype: "float64" },
    },
    throwOnError: true,
  });
  const { error } = await crossEntropy({ body: { inputs: { logits, targets: [7] } } });
  console.log(
    JSON.stringify({
      value: data.value,
      gradients: data.gradients["logits"],
      generic: generic.data.value,
      batch: many.data.results.map((result) => [
        result.status,
        result.value,
        result.dtype,
        Object.keys(result.gradients ?? {}).length,
      ]),
      problem: [error?.status, error?.errors[0]?.pointer, error?.errors[0]?.code],
    }),
  );
}

void main();
