// Calls of a client that openapi-generator makes for fetch; prints what comes of them as JSON.
import { BatchApi, ClassificationApi, Configuration, LossesApi, ProblemFromJSON, ResponseError } from "./client/index";

declare const process: { argv: string[] };

// generated code imports without extensions, as bundlers and CommonJS allow, which has no await at the top
async function main(): Promise<void> {
  const configuration = new Configuration({ basePath: process.argv[2] });
  const classification = new ClassificationApi(configuration);

  const logits = [[2, 1, 0.1]];
  const { value, gradients } = await classification.crossEntropy({
    crossEntropyRequest: { inputs: { logits, targets: [0] } },
  });
  const generic = await new LossesApi(configuration).evaluate({
    name: "mse",
    evaluationRequest: { inputs: { predictions: [3], targets: [0] } },
  });
  const item = { loss: "huber", inputs: { predictions: [5], targets: [0] } };
  const { results } = await new BatchApi(configuration).batch({
    batchRequest: {
      items: [item, { ...item, params: {} }],
      defaults: { params: { delta: 3 }, gradients: false, dtype: "float64" },
    },
  });
  let problem;
  try {
    await classification.crossEntropy({ crossEntropyRequest: { inputs: { logits, targets: [7] } } });
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    problem = ProblemFromJSON(await error.response.json());
  }
  console.log(
    JSON.stringify({
      value,
      gradients: gradients["logits"],
      generic: generic.value,
      batch: results.map((result) => [
        result.status,
        result.value,
        result.dtype,
        Object.keys(result.gradients ?? {}).length,
      ]),
      problem: [problem?.status, problem?.errors[0]?.pointer, problem?.errors[0]?.code],
    }),
  );
}

void main();
