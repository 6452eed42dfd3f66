// Pull boxes onto targets that they do not touch, with losses and gradients from lossd, in plain Go.
//
//	go run examples/detection/boxes.go [http://127.0.0.1:8000]
//
// The boxes and their updates are this file's; value, gradient and overlap are the service's:
// POST /v1/losses/iou, giou and ciou, each of which starts from the same boxes.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	steps    = 150
	every    = 10 // steps from one printed line to the next
	stride   = 0.1
	momentum = 0.5
	minSide  = 0.05 // a step may not turn a box inside out
	reached  = 0.9  // the mean IoU that counts as found
	required = 0.95 // the mean IoU to end with
)

// box is a centre and two sides: cx, cy, w, h.
type box [4]float64

// answer is what the service says of all boxes at once.
type answer struct {
	Value     float64
	Gradients struct{ Boxes []box }
	Aux       struct{ Iou []float64 }
}

// state is how the boxes of one run are doing: mean loss, mean IoU, mean area (targets have 1).
type state struct{ loss, iou, area float64 }

var client = http.Client{Timeout: 30 * time.Second}

func main() {
	server := "http://127.0.0.1:8000"
	if len(os.Args) > 1 {
		server = strings.TrimRight(os.Args[1], "/")
	}
	names, runs := []string{"iou", "giou", "ciou"}, map[string][]state{}
	for _, name := range names {
		history, err := descend(server+"/v1/losses/"+name, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "boxes:", err)
			os.Exit(1)
		}
		runs[name] = history
	}
	printTable(names, runs)
	if !conclude(runs) {
		os.Exit(1)
	}
}

// scene returns unit squares on a circle around the origin and their targets there: eight directions, and
// five aspect ratios of area 1. No box touches its target.
func scene() (boxes, targets []box) {
	for direction := 0.0; direction < 8; direction++ {
		sin, cos := math.Sincos(direction * math.Pi / 4)
		for _, ratio := range []float64{0.25, 0.5, 1, 2, 4} {
			boxes = append(boxes, box{3 * cos, 3 * sin, 1, 1})
			targets = append(targets, box{0, 0, math.Sqrt(ratio), 1 / math.Sqrt(ratio)})
		}
	}
	return boxes, targets
}

// descend minimises one loss and returns how the boxes did before each step and after the last.
func descend(url, name string) ([]state, error) {
	boxes, targets := scene()
	velocity := make([]box, len(boxes))
	var history []state
	for step := 0; step <= steps; step++ {
		found, err := evaluate(url, boxes, targets)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		history = append(history, measure(found, boxes))
		pace := stride * (1 - float64(step)/(steps+1))
		for i := range boxes {
			move(&boxes[i], &velocity[i], found.Gradients.Boxes[i], pace)
		}
	}
	return history, nil
}

// move takes a step of a given length against the smoothed gradient. Far away giou has longer gradients than
// ciou, so that one learning rate for both would favour it; steps of one length compare directions alone.
func move(b, velocity *box, gradient box, pace float64) {
	squares := 0.0
	for k := range velocity {
		velocity[k] = momentum*velocity[k] + (1-momentum)*gradient[k]
		squares += velocity[k] * velocity[k]
	}
	if squares == 0 {
		return // iou of disjoint boxes has no gradient
	}
	for k := range b {
		b[k] -= pace * velocity[k] / math.Sqrt(squares)
	}
	b[2], b[3] = math.Max(b[2], minSide), math.Max(b[3], minSide)
}

// evaluate asks the service for the loss of all boxes. A sum rather than the mean gives each box the
// gradient that it would have alone, and float64 the digits of this program's own numbers.
func evaluate(url string, boxes, targets []box) (*answer, error) {
	body, err := json.Marshal(map[string]any{
		"inputs":    map[string]any{"boxes": boxes, "targets": targets},
		"params":    map[string]any{"box_format": "cxcywh"},
		"reduction": "sum",
		"dtype":     "float64",
	})
	if err != nil {
		return nil, err
	}
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w (is the server running? `make serve` starts one)", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, text)
	}
	var found answer
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("%s does not answer as lossd does: %w", url, err)
	}
	if len(found.Gradients.Boxes) != len(boxes) || len(found.Aux.Iou) != len(boxes) {
		return nil, fmt.Errorf("%s answered without a gradient and an IoU for each box", url)
	}
	return &found, nil
}

// measure averages over the boxes.
func measure(found *answer, boxes []box) state {
	count := float64(len(boxes))
	now := state{loss: found.Value / count}
	for i, b := range boxes {
		now.iou += found.Aux.Iou[i] / count
		now.area += b[2] * b[3] / count
	}
	return now
}

// printTable shows the runs side by side.
func printTable(names []string, runs map[string][]state) {
	fmt.Print("step")
	for _, name := range names {
		fmt.Printf("  | %4s: loss    IoU  area", name)
	}
	fmt.Println()
	for step := 0; step <= steps; step += every {
		fmt.Printf("%4d", step)
		for _, name := range names {
			now := runs[name][step]
			fmt.Printf("  |     %6.3f  %5.3f  %4.1f", now.loss, now.iou, now.area)
		}
		fmt.Println()
	}
}

// conclude says what the table shows. It is false unless ciou finds the targets, and sooner than giou.
func conclude(runs map[string][]state) bool {
	giou, ciou, end := firstAbove(runs["giou"]), firstAbove(runs["ciou"]), runs["ciou"][steps].iou
	fmt.Printf("\nMean IoU above %v: giou at step %d, ciou at step %d, which ends at %.3f.\n", reached, giou, ciou, end)
	if end <= required || ciou >= giou {
		fmt.Printf("That is not as it should be: ciou first, and above %v in the end.\n", required)
		return false
	}
	fmt.Println(`Boxes that lie apart have no gradient under iou, and stay. giou and ciou both grow them until they reach their
targets; then little but the overlap is left to giou, while ciou goes on pulling the centres together: choose it
where boxes may start far from their targets.`)
	return true
}

// firstAbove returns the first step with a mean IoU that counts as found, one past the last if there is none.
func firstAbove(history []state) int {
	for step, now := range history {
		if now.iou > reached {
			return step
		}
	}
	return len(history)
}
