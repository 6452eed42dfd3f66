import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.BatchApi;
import org.openapitools.client.api.ClassificationApi;
import org.openapitools.client.api.LossesApi;
import org.openapitools.client.model.BatchDefaults;
import org.openapitools.client.model.BatchItem;
import org.openapitools.client.model.BatchRequest;
import org.openapitools.client.model.BatchResult;
import org.openapitools.client.model.CrossEntropyInputs;
import org.openapitools.client.model.CrossEntropyRequest;
import org.openapitools.client.model.Evaluation;
import org.openapitools.client.model.EvaluationRequest;
import org.openapitools.client.model.Problem;

/** Calls of a client that openapi-generator makes for java.net.http; prints what comes of them as JSON. */
class Calls {
  public static void main(String[] words) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(words[0]);
    Map<String, Object> found = new LinkedHashMap<>();

    ClassificationApi classification = new ClassificationApi(client);
    List<List<Double>> logits = List.of(List.of(2.0, 1.0, 0.1));
    CrossEntropyInputs inputs = new CrossEntropyInputs().logits(logits).targets(List.of(0));
    Evaluation evaluation = classification.crossEntropy(new CrossEntropyRequest().inputs(inputs), null);
    found.put("value", evaluation.getValue());
    found.put("gradients", evaluation.getGradients().get("logits"));

    Map<String, Object> three = Map.of("predictions", List.of(3), "targets", List.of(0));
    found.put("generic", new LossesApi(client).evaluate("mse", new EvaluationRequest().inputs(three), null).getValue());

    Map<String, Object> five = Map.of("predictions", List.of(5), "targets", List.of(0));
    BatchItem plain = new BatchItem().loss("huber").inputs(five);
    BatchItem empty = new BatchItem().loss("huber").inputs(five).params(Map.of());
    BatchDefaults defaults = new BatchDefaults().params(Map.of("delta", 3)).gradients(false);
    defaults.dtype(BatchDefaults.DtypeEnum.FLOAT64);
    BatchRequest batch = new BatchRequest().items(List.of(plain, empty)).defaults(defaults);
    List<Object> rows = new ArrayList<>();
    for (BatchResult result : new BatchApi(client).batch(batch, null).getResults()) {
      int gradients = result.getGradients() == null ? 0 : result.getGradients().size();
      Object value = result.getValue();
      rows.add(List.of(result.getStatus(), value == null ? result.getError() : value, String.valueOf(result.getDtype()), gradients));
    }
    found.put("batch", rows);

    ObjectMapper mapper = client.getObjectMapper();
    try {
      classification.crossEntropy(new CrossEntropyRequest().inputs(inputs.targets(List.of(7))), null);
    } catch (ApiException error) {
      Problem problem = mapper.readValue(error.getResponseBody(), Problem.class);
      String pointer = problem.getErrors().get(0).getPointer();
      found.put("problem", List.of(problem.getStatus(), pointer, problem.getErrors().get(0).getCode()));
    }
    System.out.println(mapper.writeValueAsString(found));
  }
}
