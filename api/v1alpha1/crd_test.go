package v1alpha1

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemacel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const crdFile = "../../charts/sallyport/files/crds/sallyport.dev_egressroutes.yaml"

// apiServer judges objects as the API server does that has our CRD: schema, list
// types and CEL rules, on the object with its defaults.
type apiServer struct {
	schema     *schema.Structural
	openapi    validation.SchemaValidator
	cel        *schemacel.Validator
	definition *apiextensions.CustomResourceDefinition
}

func newAPIServer(t testing.TB) apiServer {
	t.Helper()
	raw, err := os.ReadFile(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	var v1 apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &v1); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
	v1.Status.StoredVersions = []string{Version}
	s := apiServer{definition: &apiextensions.CustomResourceDefinition{}}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, s.definition, nil); err != nil {
		t.Fatal(err)
	}
	props, err := apiextensions.GetSchemaForVersion(s.definition, Version)
	if err != nil {
		t.Fatal(err)
	}
	if s.schema, err = schema.NewStructural(props.OpenAPIV3Schema); err != nil {
		t.Fatal(err)
	}
	if s.openapi, _, err = validation.NewSchemaValidator(props.OpenAPIV3Schema); err != nil {
		t.Fatal(err)
	}
	s.cel = schemacel.NewValidator(s.schema, true, celconfig.PerCallLimit)
	return s
}

func (s apiServer) judge(t testing.TB, manifest string) field.ErrorList {
	t.Helper()
	var object map[string]any
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	// As the API server decodes: numbers without a fraction are int64.
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		t.Fatal(err)
	}
	pruning.Prune(object, s.schema, true)
	defaulting.Default(object, s.schema)
	errs := validation.ValidateCustomResource(nil, object, s.openapi)
	rules, _ := s.cel.Validate(context.Background(), nil, s.schema, object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, rules...)
}

func TestCRDIsAcceptedByTheAPIServer(t *testing.T) {
	s := newAPIServer(t)
	if errs := apiextensionsvalidation.ValidateCustomResourceDefinition(context.Background(), s.definition); len(errs) > 0 {
		t.Fatalf("the API server refuses the CRD (CEL cost included): %v", errs.ToAggregate())
	}
}

func TestValidateAndCRDAgree(t *testing.T) {
	s := newAPIServer(t)
	for _, c := range validationCases() {
		t.Run(c.name, func(t *testing.T) {
			manifest := c.manifest()
			var r EgressRoute
			if err := yaml.Unmarshal([]byte(manifest), &r); err != nil {
				t.Fatal(err)
			}
			ours, theirs := Validate(&r), s.judge(t, manifest)
			if (len(ours) > 0) != (c.wrong != "") {
				t.Errorf("Validate: %v, want wrong: %q", ours, c.wrong)
			}
			if (len(theirs) > 0) != (c.wrong != "" && !c.oursOnly) {
				t.Errorf("CRD: %v, want wrong: %q", theirs, c.wrong)
			}
			if c.wrong != "" && !strings.Contains(fmt.Sprint(ours.ToAggregate()), c.wrong) {
				t.Errorf("Validate says %v, want it to contain %q", ours, c.wrong)
			}
		})
	}
}
