// Train a small detector with DETR's loss from lossd, in plain Go, until it finds every box of its images.
//
//	go run examples/detection/detector.go [http://127.0.0.1:8000]
//
// Images, model, its derivative and the optimiser are this file's; which query is to find which box, the loss
// and its gradients are the service's: POST /v1/losses/detr.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	side     = 24 // pixels of an image
	colours  = 2  // channels, and classes of objects: each has a colour
	grid     = 6  // queries are the cells of a grid
	queries  = grid * grid
	window   = 12                              // pixels around its centre that a query sees
	inputs   = window*window*colours + queries // what it sees, and which query it is
	hidden   = 48
	columns  = colours + 1 // the last one is no object
	outputs  = columns + 4
	images   = 16
	steps    = 300 // at most
	every    = 20  // steps from one printed line to the next
	pace     = 8e-3
	noObject = 0.3 // the weight of queries that are to find nothing: the larger, the fewer find what another found
	found    = 0.5 // the IoU with which a box counts as found
	required = 0.8 // the least IoU to end with
)

// box is a centre and two sides as fractions of the image: cx, cy, w, h.
type box [4]float64

// scene is an image, its pixels by colour, and the objects in it.
type scene struct {
	pixels [colours][side][side]float64
	boxes  []box
	labels []int
}

// answer is what the service says of a batch.
type answer struct {
	Value     float64
	Gradients struct {
		Logits [][][]float64
		Boxes  [][]box
	}
	Aux struct {
		Class float64
		L1    float64
		Giou  float64
	}
}

// layer is a matrix with a bias as its last column, its gradient, and the moments of the optimiser.
type layer struct {
	in, out                int
	weights, slope, m1, m2 []float64
}

// thought is what the model makes of one query.
type thought struct {
	seen   [inputs]float64
	hidden [hidden]float64
	logits [columns]float64
	box    box
}

// result is how many of the true boxes are found, how many queries find another thing, and the least IoU of a box found.
type result struct {
	hits, boxes, wrong int
	least              float64
}

var client = http.Client{Timeout: 30 * time.Second}

func main() {
	server := "http://127.0.0.1:8000"
	if len(os.Args) > 1 {
		server = strings.TrimRight(os.Args[1], "/")
	}
	if err := train(server + "/v1/losses/detr"); err != nil {
		fmt.Fprintln(os.Stderr, "detector:", err)
		os.Exit(1)
	}
}

// train takes steps until all boxes are found.
func train(url string) error {
	rng := rand.New(rand.NewSource(1))
	batch := drawAll(rng)
	first, second := newLayer(rng, inputs, hidden), newLayer(rng, hidden, outputs)
	fmt.Println("step    loss  class     l1   giou |  found  twice or wrong  least IoU")
	for step := 0; step <= steps; step++ {
		thoughts := think(first, second, batch)
		of, err := evaluate(url, batch, thoughts)
		if err != nil {
			return err
		}
		if step%every == 0 {
			now := examine(batch, thoughts)
			fmt.Printf("%4d  %6.3f %6.3f %6.3f %6.3f | %2d/%2d  %14d  %9.2f\n",
				step, of.Value, of.Aux.Class, of.Aux.L1, of.Aux.Giou, now.hits, now.boxes, now.wrong, now.least)
			if now.hits == now.boxes && now.wrong == 0 && now.least > required {
				fmt.Printf("\nAll %d boxes are found, each by one query, with an IoU of at least %.2f.\n", now.boxes, now.least)
				return nil
			}
		}
		learn(first, second, thoughts, of)
		rate := pace * (1 - float64(step)/(steps+1))
		first.descend(step, rate)
		second.descend(step, rate)
	}
	return fmt.Errorf("some boxes are not found after %d steps", steps)
}

// drawAll makes images: on noise, one to three rectangles that keep apart, each of a colour.
func drawAll(rng *rand.Rand) []scene {
	drawn := make([]scene, images)
	for i := range drawn {
		draw(rng, &drawn[i])
	}
	return drawn
}

func draw(rng *rand.Rand, s *scene) {
	for colour := range s.pixels {
		for y := range s.pixels[colour] {
			for x := range s.pixels[colour][y] {
				s.pixels[colour][y][x] = 0.1 * rng.NormFloat64()
			}
		}
	}
	for wanted := 1 + rng.Intn(3); len(s.boxes) < wanted; {
		w, h := 4+rng.Intn(5), 4+rng.Intn(5)
		left, top := rng.Intn(side-w+1), rng.Intn(side-h+1)
		b := box{
			(float64(left) + float64(w)/2) / side, (float64(top) + float64(h)/2) / side,
			float64(w) / side, float64(h) / side,
		}
		if !apart(b, s.boxes) {
			continue
		}
		colour := rng.Intn(colours)
		for y := top; y < top+h; y++ {
			for x := left; x < left+w; x++ {
				s.pixels[colour][y][x] += 1
			}
		}
		s.boxes, s.labels = append(s.boxes, b), append(s.labels, colour)
	}
}

// apart says whether a box keeps a pixel's distance from others.
func apart(b box, others []box) bool {
	for _, o := range others {
		if math.Abs(b[0]-o[0]) < (b[2]+o[2])/2+1.0/side && math.Abs(b[1]-o[1]) < (b[3]+o[3])/2+1.0/side {
			return false
		}
	}
	return true
}

// think runs the model: every query sees the pixels around its cell, and which query it is, through the same two layers.
func think(first, second *layer, batch []scene) [][]thought {
	thoughts := make([][]thought, len(batch))
	for i := range batch {
		thoughts[i] = make([]thought, queries)
		for q := range thoughts[i] {
			t := &thoughts[i][q]
			look(&batch[i], q, t.seen[:])
			first.run(t.seen[:], t.hidden[:])
			for k, h := range t.hidden {
				t.hidden[k] = math.Max(h, 0)
			}
			var raw [outputs]float64
			second.run(t.hidden[:], raw[:])
			copy(t.logits[:], raw[:columns])
			at := cell(q)
			for k := range t.box {
				t.box[k] = sigmoid(raw[columns+k] + logit(at[k]))
			}
		}
	}
	return thoughts
}

// cell is the box that a query starts from.
func cell(q int) box {
	return box{(float64(q%grid) + 0.5) / grid, (float64(q/grid) + 0.5) / grid, 0.25, 0.25}
}

// look copies the window of a query; beyond the image there is nothing. The last inputs are 0 but for that of the query.
func look(s *scene, q int, seen []float64) {
	left, top := side/grid*(q%grid)+(side/grid-window)/2, side/grid*(q/grid)+(side/grid-window)/2
	place := 0
	for colour := range s.pixels {
		for y := top; y < top+window; y++ {
			for x := left; x < left+window; x++ {
				seen[place] = -0.5
				if x >= 0 && x < side && y >= 0 && y < side {
					seen[place] = s.pixels[colour][y][x]
				}
				place++
			}
		}
	}
	seen[place+q] = 1
}

// learn adds up the gradients of the weights, from those of the logits and boxes.
func learn(first, second *layer, thoughts [][]thought, of *answer) {
	for i := range thoughts {
		for q := range thoughts[i] {
			t := &thoughts[i][q]
			var raw [outputs]float64
			copy(raw[:columns], of.Gradients.Logits[i][q])
			for k, b := range t.box {
				raw[columns+k] = of.Gradients.Boxes[i][q][k] * b * (1 - b)
			}
			var inner [hidden]float64
			second.backward(t.hidden[:], raw[:], inner[:])
			for k, h := range t.hidden {
				if h <= 0 {
					inner[k] = 0
				}
			}
			first.backward(t.seen[:], inner[:], nil)
		}
	}
}

// evaluate asks the service for the loss of a batch, whose true boxes lie one image after another.
func evaluate(url string, batch []scene, thoughts [][]thought) (*answer, error) {
	logits, boxes := make([][][columns]float64, len(batch)), make([][]box, len(batch))
	labels, truths, counts := []int{}, []box{}, []int{}
	for i, s := range batch {
		for _, t := range thoughts[i] {
			logits[i], boxes[i] = append(logits[i], t.logits), append(boxes[i], t.box)
		}
		labels, truths, counts = append(labels, s.labels...), append(truths, s.boxes...), append(counts, len(s.boxes))
	}
	body, err := json.Marshal(map[string]any{
		"inputs": map[string]any{
			"logits": logits, "boxes": boxes, "labels": labels, "true_boxes": truths, "counts": counts,
		},
		"params": map[string]any{"no_object_weight": noObject},
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
	var of answer
	if err := json.Unmarshal(text, &of); err != nil {
		return nil, fmt.Errorf("%s does not answer as lossd does: %w", url, err)
	}
	if len(of.Gradients.Logits) != len(batch) || len(of.Gradients.Boxes) != len(batch) {
		return nil, fmt.Errorf("%s answered without the gradients of each image", url)
	}
	return &of, nil
}

// examine looks for the true boxes among those of queries that have seen an object. Nothing suppresses a second query
// for a box, so it counts as wrong.
func examine(batch []scene, thoughts [][]thought) result {
	now := result{least: 1}
	for i, s := range batch {
		now.boxes += len(s.boxes)
		taken := make([]bool, len(s.boxes))
		for _, t := range thoughts[i] {
			class := best(t.logits)
			if class == colours {
				continue
			}
			hit := -1
			for j, b := range s.boxes {
				if !taken[j] && class == s.labels[j] && iou(t.box, b) >= found {
					hit = j
				}
			}
			if hit < 0 {
				now.wrong++
				continue
			}
			taken[hit] = true
			now.hits++
			now.least = math.Min(now.least, iou(t.box, s.boxes[hit]))
		}
	}
	return now
}

func best(logits [columns]float64) int {
	class := 0
	for k, z := range logits {
		if z > logits[class] {
			class = k
		}
	}
	return class
}

// iou is the intersection over the union of two boxes.
func iou(a, b box) float64 {
	shared := 1.0
	for k := 0; k < 2; k++ {
		low := math.Max(a[k]-a[k+2]/2, b[k]-b[k+2]/2)
		high := math.Min(a[k]+a[k+2]/2, b[k]+b[k+2]/2)
		shared *= math.Max(high-low, 0)
	}
	return shared / (a[2]*a[3] + b[2]*b[3] - shared)
}

func newLayer(rng *rand.Rand, in, out int) *layer {
	size := (in + 1) * out
	l := &layer{in, out, make([]float64, size), make([]float64, size), make([]float64, size), make([]float64, size)}
	for i := range l.weights {
		l.weights[i] = rng.NormFloat64() * math.Sqrt(1/float64(in))
	}
	return l
}

// row is the part of a tensor of the layer that belongs to one output.
func (l *layer) row(tensor []float64, k int) []float64 { return tensor[k*(l.in+1) : (k+1)*(l.in+1)] }

func (l *layer) run(x, y []float64) {
	for k := range y {
		weights := l.row(l.weights, k)
		sum := weights[l.in]
		for i, v := range x {
			sum += weights[i] * v
		}
		y[k] = sum
	}
}

// backward adds to the gradient of the weights, and to that of x if it is wanted.
func (l *layer) backward(x, upstream, ofX []float64) {
	for k, u := range upstream {
		if u == 0 {
			continue
		}
		weights, slope := l.row(l.weights, k), l.row(l.slope, k)
		for i, v := range x {
			slope[i] += u * v
		}
		slope[l.in] += u
		for i := range ofX {
			ofX[i] += u * weights[i]
		}
	}
}

// descend takes a step of Adam, and clears the gradient.
func (l *layer) descend(step int, rate float64) {
	const beta1, beta2 = 0.9, 0.99
	of1, of2 := 1-math.Pow(beta1, float64(step+1)), 1-math.Pow(beta2, float64(step+1))
	for i, g := range l.slope {
		l.m1[i] = beta1*l.m1[i] + (1-beta1)*g
		l.m2[i] = beta2*l.m2[i] + (1-beta2)*g*g
		l.weights[i] -= rate * (l.m1[i] / of1) / (math.Sqrt(l.m2[i]/of2) + 1e-8)
		l.slope[i] = 0
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func logit(p float64) float64 { return math.Log(p / (1 - p)) }
