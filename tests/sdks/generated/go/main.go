// Calls of a client that openapi-generator makes; prints what comes of them as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	api "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func main() {
	ctx := context.Background()
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: os.Args[1]}}
	client := api.NewAPIClient(configuration)
	found := map[string]any{}

	inputs := api.NewCrossEntropyInputs([][]float64{{2, 1, 0.1}}, []int{0})
	request := *api.NewCrossEntropyRequest(*inputs)
	evaluation, _, err := client.ClassificationAPI.CrossEntropy(ctx).CrossEntropyRequest(request).Execute()
	must(err)
	found["value"], found["gradients"] = evaluation.GetValue(), evaluation.GetGradients()["logits"]

	generic := *api.NewEvaluationRequest(map[string]interface{}{"predictions": []int{3}, "targets": []int{0}})
	evaluation, _, err = client.LossesAPI.Evaluate(ctx, "mse").EvaluationRequest(generic).Execute()
	must(err)
	found["generic"] = evaluation.GetValue()

	item := api.NewBatchItem()
	item.SetLoss("huber")
	item.SetInputs(map[string]interface{}{"predictions": []int{5}, "targets": []int{0}})
	empty := *item
	empty.SetParams(map[string]interface{}{})
	defaults := api.NewBatchDefaults()
	defaults.SetParams(map[string]interface{}{"delta": 3})
	defaults.SetGradients(false)
	defaults.SetDtype("float64")
	batch := *api.NewBatchRequest([]api.BatchItem{*item, empty})
	batch.SetDefaults(*defaults)
	results, _, err := client.BatchAPI.Batch(ctx).BatchRequest(batch).Execute()
	must(err)
	rows := []any{}
	for _, result := range results.GetResults() {
		rows = append(rows, []any{result.GetStatus(), result.GetValue(), result.GetDtype(), len(result.GetGradients())})
	}
	found["batch"] = rows

	request.Inputs.SetTargets([]int{7})
	_, _, err = client.ClassificationAPI.CrossEntropy(ctx).CrossEntropyRequest(request).Execute()
	var refused *api.GenericOpenAPIError
	if !errors.As(err, &refused) {
		log.Fatal(err)
	}
	problem := refused.Model().(api.Problem)
	found["problem"] = []any{problem.GetStatus(), problem.GetErrors()[0].GetPointer(), problem.GetErrors()[0].GetCode()}

	text, err := json.Marshal(found)
	must(err)
	fmt.Println(string(text))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
